/** What the engine's process needs in its environment before it starts. */

/** Two long queries, two short ones, one for control and one to spare. */
export const DEFAULT_SESSIONS = 6;

/** Threads beyond one per session: KILL, compression, files. */
export const SPARE_THREADS = 4;

/**
 * Memory that was freed goes back to the system soon: the engine's allocator and libc's otherwise keep what a burst of inserts
 * took (measured over 2 M rows: 570 MB resident without, 390 MB with, at the same speed). Native calls take threads of a
 * pool whose size is read once, before any code of a script runs.
 */
export function engineEnvironment(sessions: number): NodeJS.ProcessEnv {
  return {
    JE_MALLOC_CONF: 'dirty_decay_ms:500,muzzy_decay_ms:0',
    MALLOC_ARENA_MAX: '1',
    MALLOC_MMAP_THRESHOLD_: '1048576',
    MALLOC_TRIM_THRESHOLD_: '1048576',
    UV_THREADPOOL_SIZE: String(sessions + SPARE_THREADS),
  };
}
