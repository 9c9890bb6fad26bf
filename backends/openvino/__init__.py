"""OpenVINO: Intel and Arm CPUs, Intel NPUs."""
