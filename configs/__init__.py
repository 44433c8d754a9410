"""Ready-made YAML files: models, evaluations, sign-off plans, gates."""
