"""Pictures and frames outside the networks: preparing the centre frame, joining segments, matching colours."""
