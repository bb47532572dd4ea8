# A source of 1 GiB.
# process: syntax
# sandbox: syntax
# says: 4 MiB
# make: huge

