"""Namespaces that the platform lives in are not deleted, by whomever: all that is in them would go.

Source: k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle. The namespace of the nodes' leases is spared too: its
end would look like that of all nodes.
"""

from __future__ import annotations

from cuboid.kube.admission import Request
from cuboid.kube.admit.plug import DELETE, Plug, refusal
from cuboid.kube.namespaces import PERMANENT


class PermanentNamespaces(Plug):
    about = (("", "namespaces"),)
    operations = (DELETE,)

    def admit(self, request: Request) -> None:
        if request.name in PERMANENT:
            raise refusal(request, "this namespace may not be deleted")
