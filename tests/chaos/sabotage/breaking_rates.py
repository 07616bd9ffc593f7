"""The sampling rates, in Hz, at which sitecustomize.py breaks a decoder."""

HANG = 16_001
CRASH = 16_002
EAT = 16_003  # memory
KILL = 16_004  # as the kernel does when memory runs out
SLOW = 16_005  # 20 s
