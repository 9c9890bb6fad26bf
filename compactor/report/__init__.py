"""What a build leaves behind: artifact folder, manifest, gate, summary."""
