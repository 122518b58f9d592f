"""What the Beam runner needs: flags for each engine, job servers, and what is looked at before a run."""
