"""The representation: Program, axis analysis, Subnet, slicing, masking, cost counting."""
