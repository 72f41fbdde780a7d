"""From words and YAML to a checked, typed Config. Only this package knows Hydra and OmegaConf."""
