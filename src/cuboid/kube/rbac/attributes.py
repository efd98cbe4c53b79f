"""What a request wants to do, as authorization sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attributes:
    """`path` is set for a request that is about no resource (`/version`), and then nothing else but the verb.

    `selector` is the field selector of a list or a watch, as it was sent.
    """

    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    sub: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    selector: str = ""

    @property
    def target(self) -> str:
        """As rules name it: `pods`, `pods/log`."""
        return f"{self.resource}/{self.sub}" if self.sub else self.resource

    def denied(self, user: str) -> str:
        """Kubernetes' words for the refusal."""
        if self.path:
            return f'forbidden: User "{user}" cannot {self.verb} path "{self.path}"'
        what = f"{self.resource}.{self.group}" if self.group else self.resource
        named = f' "{self.name}"' if self.name else ""
        where = f'in the namespace "{self.namespace}"' if self.namespace else "at the cluster scope"
        return (
            f'{what}{named} is forbidden: User "{user}" cannot {self.verb} resource "{self.target}" '
            f'in API group "{self.group}" {where}'
        )
