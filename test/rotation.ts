/** The real logrotate with this project's configuration, in directories of a test's own and as the user that runs it. */
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { logrotateConfig } from '../scripts/lib/logrotate.ts';

const LOGROTATE = '/usr/sbin/logrotate';
/** Names of rotated files tell the second: two rotations within one would be the same file, which logrotate refuses. */
const NAME_MS = 1010;
const SYSTEMD_SCRIPT = /^ {4}postrotate\n[\s\S]*?^ {4}endscript$/gm;

export class Rotation {
  readonly dir = mkdtempSync(join(tmpdir(), 'marketprism-rotation-'));
  readonly dataDir: string;
  readonly logDir = join(this.dir, 'log');
  readonly config = join(this.dir, 'logrotate.conf');
  private readonly state = join(this.dir, 'status');
  private readonly pids = join(this.dir, 'pids');
  private rotatedAt = 0;

  /**
   * @param change has the last word on the configuration
   * @param place of what is to be rotated; absent: an empty one
   */
  constructor(change: (text: string) => string = (text) => text, place?: string) {
    this.dataDir = place ?? join(this.dir, 'lib');
    for (const each of [this.dataDir, this.logDir]) mkdirSync(each, { recursive: true });
    const group = execFileSync('/usr/bin/id', ['-gn'], { encoding: 'utf8' }).trim();
    const { dataDir, logDir } = this;
    const text = logrotateConfig({ dataDir, logDir, user: userInfo().username, group });
    // In place of systemd: the same signal to the same processes.
    const script = `    postrotate\n        for pid in $(cat ${this.pids}); do kill -HUP $pid 2>/dev/null || true; done\n    endscript`;
    writeFileSync(this.config, change(text.replaceAll(SYSTEMD_SCRIPT, () => script)), { mode: 0o644 });
    this.tell([]);
  }

  /** Who is told by SIGHUP. */
  tell(pids: readonly number[]): void {
    writeFileSync(this.pids, pids.join(' '));
  }

  /** @returns what it said on stderr: nothing, when all went well */
  async run(flags: readonly string[]): Promise<string> {
    const { stderr } = await promisify(execFile)(LOGROTATE, ['--state', this.state, ...flags, this.config]);
    return stderr;
  }

  /** Rotates everything now. */
  async force(): Promise<string> {
    await new Promise((done) => setTimeout(done, Math.max(this.rotatedAt + NAME_MS - Date.now(), 0)));
    const said = await this.run(['--force']);
    this.rotatedAt = Date.now();
    return said;
  }

  /** Has it believe that it rotated these files so many days ago. */
  pretend(paths: readonly string[], days: number): void {
    const then = new Date(Date.now() - days * 86_400_000);
    const date = `${then.getFullYear()}-${then.getMonth() + 1}-${then.getDate()}-0:0:0`;
    writeFileSync(this.state, `logrotate state -- version 2\n${paths.map((path) => `"${path}" ${date}\n`).join('')}`, {
      mode: 0o600,
    });
  }

  close(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** The lines of a file over all its rotations, read without any of the project's own readers: dated names are in order, and the file itself is last. */
export function linesByHand(directory: string, name: string): string[] {
  const names = readdirSync(directory).filter((each) => each.startsWith(`${name}-`) && !each.includes('.torn'));
  names.sort();
  if (statSync(join(directory, name), { throwIfNoEntry: false })) names.push(name);
  const texts = names.map((each) => {
    const bytes = readFileSync(join(directory, each));
    return (each.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString();
  });
  const all = texts.join('');
  // A file without an end would be glued to the next one: it stays to be seen.
  return texts.some((text) => text !== '' && !text.endsWith('\n'))
    ? [...all.split('\n'), 'a file without an end']
    : all.split('\n').slice(0, -1);
}
