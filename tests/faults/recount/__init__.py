"""The independent recount: plain clients, plain loops, nothing of the product's own code.

From the raw topics, read back partition by partition in the order of their offsets, it derives what must be in the
store, in the dead letters and in the ledger, and compares.
"""
