"""One run on several processes, with torch's own process group, DDP and FSDP2."""
