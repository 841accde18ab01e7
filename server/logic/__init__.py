"""What a dispatcher decides: matching, claims, updates, verdicts, time-outs. No HTTP here, and no SQL."""
