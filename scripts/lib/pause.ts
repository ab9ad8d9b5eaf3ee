/** Waits that a stop can end. */

/** Waits `ms`; rejects with the signal's reason as soon as `stop` fires. */
export function pause(ms: number, stop?: AbortSignal): Promise<void> {
  return new Promise((done, fail) => {
    if (stop?.aborted) {
      fail(stop.reason);
      return;
    }
    const onStop = () => {
      clearTimeout(timer);
      fail(stop!.reason);
    };
    const timer = setTimeout(() => {
      stop?.removeEventListener('abort', onStop);
      done();
    }, ms);
    stop?.addEventListener('abort', onStop, { once: true });
  });
}
