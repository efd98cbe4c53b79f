"""From layers to a block device, in a process that can do nothing else. `convert.run` is the door for the store."""
