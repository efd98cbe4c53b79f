"""The Common Expression Language, as far as validation rules of custom resources use it.

Rules come from tenants and run on the server's loop: every step is counted, and there is an end to them. Expressions
are checked for syntax, names and functions when they are compiled; types show when they are evaluated.
Source: github.com/google/cel-spec, doc/langdef.md, and the libraries of k8s.io/apiserver/pkg/cel/library.
"""

from cuboid.kube.crd.cel.parse import Program, compiled
from cuboid.kube.crd.cel.values import Budget, CelError, Optional

__all__ = ["Budget", "CelError", "Optional", "Program", "compiled"]
