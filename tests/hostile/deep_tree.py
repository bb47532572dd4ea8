# A source nested a million deep.
# process: syntax|import|memory|crashed
# sandbox: syntax|import|memory|crashed
# make: deep

