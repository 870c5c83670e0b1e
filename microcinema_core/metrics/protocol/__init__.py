"""The paper's evaluation on UCF-101 and MSR-VTT (section 4): prompts, samples, scores, captions of key frames."""
