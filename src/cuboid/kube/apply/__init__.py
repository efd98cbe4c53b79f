"""Field ownership: who wrote which field of an object (`metadata.managedFields`), and server-side apply upon it.

Pure: values and sets in, values and sets out. Source of the rules: sigs.k8s.io/structured-merge-diff.
"""
