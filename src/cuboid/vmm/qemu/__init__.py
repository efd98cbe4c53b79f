"""The QEMU driver: the `microvm` machine, one jailed process per VM and no other host process."""
