"""Any architecture: which axes are found in how many architectures, and whether what is predicted of them holds."""
