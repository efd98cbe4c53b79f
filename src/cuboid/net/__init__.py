"""Networks by CNI: a namespace, an attachment and a tap per pod. Knows nothing of VMs or images."""
