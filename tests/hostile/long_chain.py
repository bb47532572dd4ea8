# A source of a million additions.
# process: syntax|import|memory|crashed
# sandbox: syntax|import|memory|crashed
# make: chain

