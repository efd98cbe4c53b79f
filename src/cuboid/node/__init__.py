"""The node agent: one resident process per machine that gives each pod bound to it a virtual machine of its own.

`sandbox` decides (pure), `steps` act, `daemon` joins the two and the Kubernetes API. Nothing here may know which VMM
driver it has, keep state that is not in a pod's record or in the API, or wait on the outside without a deadline.
"""
