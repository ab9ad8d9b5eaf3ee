/** A connection that a test can cut, mute, or make to swallow bytes. */
import { connect as connectSocket, createServer, type Socket } from 'node:net';

/** A wire to a server on this machine. */
export class Wire {
  /** Bytes of the server's answers are dropped, so the wire must be cut before it is used again. */
  muted = false;
  /** What of each chunk goes on to the server; a client of NATS writes whole commands. */
  pass: (text: string) => string = (text) => text;
  /** No new connection comes about while false. */
  open = true;
  /** Connections that were asked for, and up to how many come about. */
  attempts = 0;
  most = Number.POSITIVE_INFINITY;
  private readonly sockets = new Set<Socket>();
  private readonly server = createServer((client) => {
    this.attempts += 1;
    if (!this.open || this.attempts > this.most) {
      client.destroy();
      return;
    }
    const server = connectSocket(this.target, '127.0.0.1');
    for (const socket of [client, server]) {
      this.sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        this.sockets.delete(socket);
        client.destroy();
        server.destroy();
      });
    }
    client.on('data', (chunk) => server.write(Buffer.from(this.pass(chunk.toString('latin1')), 'latin1')));
    server.on('data', (chunk) => {
      if (!this.muted) client.write(chunk);
    });
  });

  /** @param target the server's port */
  constructor(private readonly target: number) {}

  /** @returns host and port */
  async listen(): Promise<string> {
    await new Promise<void>((done) => this.server.listen(0, '127.0.0.1', done));
    return `127.0.0.1:${(this.server.address() as { port: number }).port}`;
  }

  cut(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((done) => this.server.close(done));
  }
}
