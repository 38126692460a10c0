"""Federated lifelong person re-identification (FedSTIL), simulated on MPI."""

__version__ = "0.1.0"
