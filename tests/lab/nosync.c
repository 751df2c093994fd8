/* Preloaded into the agent, it turns every sync into nothing: what the power-cut test must then find out. */
int fsync(int file) { (void)file; return 0; }
int fdatasync(int file) { (void)file; return 0; }
