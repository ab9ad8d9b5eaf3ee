/**
 * A Debian with systemd of its own, booted in a container without a network: debootstrap and systemd-nspawn, both from apt. The system is made once and
 * kept; each machine works on a layer over it, which goes with it.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const RELEASE = 'bookworm';
/** systemd and what an installation needs of apt; the rest is Debian's minimum. */
const PACKAGES = 'systemd,systemd-sysv,dbus,libstdc++6,ca-certificates,logrotate,nats-server,procps';
const KEPT = '/var/tmp/marketprism-booted';
const BASE = join(KEPT, `${RELEASE}-1`);
const BOOT_LIMIT_MS = 60_000;
/** systemd-nspawn with --keep-unit leaves it to who started it to do so again. */
const REBOOT_ASKED = 133;
/** Where the checkout is in the machine, read-only. */
export const PROJECT = '/srv/project';

export interface Ran {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Why no machine can be booted here; null: one can. */
export function bootTrouble(): string | null {
  if (process.getuid?.() !== 0) return 'only root boots a machine';
  const missing = ['debootstrap', 'systemd-nspawn', 'nsenter'].filter(
    (name) => spawnSync('sh', ['-c', `command -v ${name}`]).status !== 0,
  );
  return missing.length === 0 ? null : `apt-get install debootstrap systemd-container (missing: ${missing.join(', ')})`;
}

function must(command: string, args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 2 ** 26 });
  if (status === 0) return stdout;
  throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? `${stdout}${stderr}`.trim().split('\n').at(-1)}`);
}

/** Debian's minimum with systemd, made once in about a minute. */
function prepareBase(): void {
  if (existsSync(join(BASE, '.ready'))) return;
  rmSync(BASE, { recursive: true, force: true });
  mkdirSync(KEPT, { recursive: true });
  const sources = ['/etc/apt/sources.list.d/debian.sources', '/etc/apt/sources.list'].filter((path) =>
    existsSync(path),
  );
  const text = sources.map((path) => readFileSync(path, 'utf8')).join('\n');
  const mirror = /^(?:URIs: *|deb +(?:\[[^\]]*\] +)?)(https?:\S+)/m.exec(text)?.[1];
  must('debootstrap', ['--variant=minbase', `--include=${PACKAGES}`, RELEASE, BASE, ...(mirror ? [mirror] : [])]);
  writeFileSync(join(BASE, '.ready'), '');
}

export class Machine {
  private process: ChildProcess | null = null;
  private console = '';

  private constructor(
    private readonly dir: string,
    private readonly project: string,
  ) {}

  /** @param project a checkout whose packages are there */
  static async boot(project: string): Promise<Machine> {
    prepareBase();
    const machine = new Machine(mkdtempSync(join(KEPT, 'run-')), project);
    try {
      machine.mount();
      await machine.start();
      return machine;
    } catch (error) {
      await machine.destroy();
      throw error;
    }
  }

  private get copy(): string {
    return join(this.dir, 'project');
  }

  private get root(): string {
    return join(this.dir, 'root');
  }

  private mount(): void {
    for (const each of ['upper', 'work', 'root']) mkdirSync(join(this.dir, each));
    const layers = `lowerdir=${BASE},upperdir=${join(this.dir, 'upper')},workdir=${join(this.dir, 'work')}`;
    must('mount', ['-t', 'overlay', 'overlay', '-o', layers, this.root]);
    // Node as its makers pack it, and npm beside it.
    copyFileSync(realpathSync(process.execPath), join(this.root, 'usr/bin/node'));
    const npm = realpathSync(must('sh', ['-c', 'command -v npm']).trim());
    const to = join(this.root, 'usr/lib/node_modules/npm');
    cpSync(dirname(dirname(npm)), to, { recursive: true, verbatimSymlinks: true });
    symlinkSync('../lib/node_modules/npm/bin/npm-cli.js', join(this.root, 'usr/bin/npm'));
    mkdirSync(join(this.root, PROJECT), { recursive: true });
    // As it is now, whatever is changed in it meanwhile.
    const left = new Set(['node_modules', '.git', 'data'].map((name) => join(this.project, name)));
    cpSync(this.project, this.copy, { recursive: true, filter: (path) => !left.has(path) });
    mkdirSync(join(this.copy, 'node_modules'));
  }

  private async start(): Promise<void> {
    const args = ['--quiet', '--keep-unit', '--register=no', '--private-network', '-D', this.root];
    const packages = `${join(this.project, 'node_modules')}:${PROJECT}/node_modules`;
    const binds = [`--bind-ro=${this.copy}:${PROJECT}`, `--bind-ro=${packages}`];
    const child = spawn('systemd-nspawn', [...args, ...binds, '--boot'], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.process = child;
    const keep = (chunk: Buffer) => {
      this.console = `${this.console}${chunk}`.slice(-100_000);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    await this.untilBooted();
  }

  /** Until systemd says that it has started what there is to start. */
  async untilBooted(): Promise<void> {
    for (const deadline = Date.now() + BOOT_LIMIT_MS; ; await sleep(200)) {
      const state = this.leader() === null ? '' : this.tried('systemctl', 'is-system-running').stdout.trim();
      if (['running', 'degraded'].includes(state)) return;
      if (Date.now() > deadline) throw new Error(`the machine did not boot (${state}): ${this.console.slice(-2000)}`);
    }
  }

  /** Goes down in order, and comes up again. */
  async reboot(): Promise<void> {
    const child = this.process!;
    const gone = new Promise<number | null>((done) => child.once('exit', done));
    // It takes the way in along when it goes.
    this.tried('systemctl', 'reboot');
    const code = await gone;
    if (code !== REBOOT_ASKED) throw new Error(`the machine went down with ${code}: ${this.console.slice(-2000)}`);
    await this.start();
  }

  /** The container's first process, as the host sees it; null: it is not up. */
  leader(): string | null {
    const { stdout } = spawnSync('pgrep', ['-P', String(this.process?.pid ?? 0)], { encoding: 'utf8' });
    return stdout.trim().split('\n')[0] || null;
  }

  /** Runs a program in the machine, as root. */
  tried(command: string, ...args: string[]): Ran {
    const leader = this.leader();
    if (leader === null) return { code: null, stdout: '', stderr: 'the machine is not up' };
    const namespaces = ['-t', leader, '-m', '-u', '-i', '-n', '-p', '-C', `--wdns=${PROJECT}`];
    // The host's settings are none of the machine's.
    const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root', LANG: 'C.UTF-8', ...this.env };
    const { status, stdout, stderr } = spawnSync('nsenter', [...namespaces, command, ...args], {
      encoding: 'utf8',
      maxBuffer: 2 ** 28,
      env,
    });
    return { code: status, stdout, stderr };
  }

  /** Settings of the programs that are run, such as where the data are. */
  env: Record<string, string> = {};

  /** The same. @throws when it fails */
  run(command: string, ...args: string[]): string {
    const { code, stdout, stderr } = this.tried(command, ...args);
    if (code === 0) return stdout;
    throw new Error(`${command} ${args.join(' ')} in the machine: code ${code}: ${(stderr || stdout).slice(-2000)}`);
  }

  /** The machine's own path of a file, as the host sees it. */
  path(path: string): string {
    return join(this.root, path);
  }

  async destroy(): Promise<void> {
    const { process: child } = this;
    if (child !== null && child.exitCode === null) {
      const gone = new Promise<void>((done) => child.once('exit', () => done()));
      // Nothing in it is needed any more.
      this.tried('systemctl', 'poweroff', '--force', '--force');
      const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
      await gone;
      clearTimeout(timer);
    }
    spawnSync('umount', ['-l', this.root]);
    rmSync(this.dir, { recursive: true, force: true });
  }
}
