"""Clients of the Open Inference Protocol: one interface over gRPC and HTTP, blocking and asynchronous."""
