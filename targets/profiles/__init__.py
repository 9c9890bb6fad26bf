"""Device profiles, one TOML file per device and power mode."""
