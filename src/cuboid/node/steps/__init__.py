"""The acting: each instruction of the sandbox core as one idempotent coroutine with deadlines, answering with an event.

Knows the driver, network, disks, images and guest contracts; decides nothing about the life of a pod.
"""
