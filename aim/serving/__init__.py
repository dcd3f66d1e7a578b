"""One engine or many: replicas elsewhere behind the interface of one."""
