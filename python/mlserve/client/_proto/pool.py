"""The pool that holds our descriptors, apart from the process-wide one."""

from __future__ import annotations

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
