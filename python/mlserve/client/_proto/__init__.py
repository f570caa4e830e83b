"""Messages of the protocol, generated from protos/; see protos/generate.py for why not by protoc alone."""
