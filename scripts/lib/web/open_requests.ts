/**
 * Requests that are not answered yet. Who sends several at once on one connection and goes leaves answers that were never begun: node tells nobody of
 * their end, and what they stand for (queries, listeners) would stay for ever. So the end of a connection ends all of its requests.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebError } from './route.ts';

export class OpenRequests {
  private readonly all = new Set<AbortController>();
  private readonly ofConnection = new WeakMap<Duplex, Set<AbortController>>();
  private readonly signals = new WeakMap<ServerResponse, AbortSignal>();

  get size(): number {
    return this.all.size;
  }

  /** From the first byte of a request to the last one of its answer. */
  begin({ socket }: IncomingMessage, response: ServerResponse): void {
    const gone = new AbortController();
    const ofConnection = this.of(socket);
    this.signals.set(response, gone.signal);
    this.all.add(gone);
    ofConnection.add(gone);
    response.once('close', () => {
      ofConnection.delete(gone);
      this.end(gone, response.writableFinished);
    });
  }

  /** Fires when the client goes before its answer is whole, or the service stops. */
  goneOf(response: ServerResponse): AbortSignal {
    return this.signals.get(response)!;
  }

  /** Whether an answer is under way on a connection. */
  isAnswering(socket: Duplex): boolean {
    return (this.ofConnection.get(socket)?.size ?? 0) > 0;
  }

  /** Ends what is under way. */
  abortAll(reason: Error): void {
    for (const each of this.all) each.abort(reason);
  }

  private of(socket: Duplex): Set<AbortController> {
    const known = this.ofConnection.get(socket);
    if (known !== undefined) return known;
    const made = new Set<AbortController>();
    this.ofConnection.set(socket, made);
    socket.once('close', () => {
      for (const each of made) this.end(each, false);
      made.clear();
    });
    return made;
  }

  private end(gone: AbortController, isWhole: boolean): void {
    if (this.all.delete(gone) && !isWhole) gone.abort(new WebError(499, 'the client has gone'));
  }
}
