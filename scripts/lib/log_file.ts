/** A file of lines that several sources write to, such as both outputs of a child: renamed by logrotate at any time, without a line that is lost or torn. */
import { closeSync, fstatSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { hasName } from './files.ts';
import { holdsOpen, letGo } from './hangup.ts';

const LINE_FEED = 0x0a;
/** What has no end by then is written in pieces. */
const MOST_LINE_BYTES = 2 ** 20;

export class LogFile {
  private file: number | null = null;
  /** Bytes that the disk did not take. */
  private lost = 0;

  constructor(readonly path: string) {}

  /** Lines that have an end; a file that was renamed is left as it is, and a new one begun. */
  append(bytes: Buffer): void {
    const told = this.lost === 0 ? bytes : Buffer.concat([lossLine(this.lost), bytes]);
    try {
      this.write(told);
      this.lost = 0;
    } catch {
      // A full disk must not end who watches over everything. It is told in the file once there is room.
      this.lost += bytes.length;
    }
  }

  close(): void {
    letGo(this.release);
    this.release();
  }

  /** @throws when the disk takes not all of it: nothing of it is in the file then */
  private write(bytes: Buffer): void {
    const file = this.present();
    const { size } = fstatSync(file);
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done);
    } catch (error) {
      ftruncateSync(file, size);
      throw error;
    }
  }

  /** The file that has the name now. */
  private present(): number {
    if (this.file !== null && hasName(this.file, this.path)) return this.file;
    this.release();
    this.file = openSync(this.path, 'a');
    holdsOpen(this.release);
    return this.file;
  }

  private readonly release = (): void => {
    if (this.file !== null) closeSync(this.file);
    this.file = null;
  };
}

function lossLine(bytes: number): Buffer {
  const line = { level: 'error', service: 'up', time: new Date().toISOString(), event: 'log_lines_lost', bytes };
  return Buffer.from(`${JSON.stringify(line)}\n`);
}

/** What one source writes, cut into whole lines: those of two sources do not mix. */
export class LineSource {
  private rest: Buffer[] = [];
  private waiting = 0;

  constructor(private readonly file: Pick<LogFile, 'append'>) {}

  write(chunk: Buffer): void {
    const end = chunk.lastIndexOf(LINE_FEED) + 1;
    if (end > 0) this.file.append(Buffer.concat([...this.take(), chunk.subarray(0, end)]));
    if (end < chunk.length) this.rest.push(chunk.subarray(end));
    this.waiting += chunk.length - end;
    if (this.waiting > MOST_LINE_BYTES) this.end();
  }

  /** The source is gone: what it was writing is a line, too. */
  end(): void {
    if (this.waiting > 0) this.file.append(Buffer.concat([...this.take(), Buffer.from('\n')]));
  }

  private take(): Buffer[] {
    this.waiting = 0;
    return this.rest.splice(0);
  }
}
