"""BatchNorm folded into convolutions, and put in again."""
