/**
 * Makes a bare Debian 12 with Node 20 and npm ready: packages from the lock file, the nats-server program, and for tests Debian's Chromium and logrotate. Plain
 * JavaScript, because it runs before anything is installed. A second run sees that all is there and ends at once.
 *
 * Usage: node scripts/lib/setup.mjs [--dev] [--machine] [--network]
 *   --dev       also what the tests and the bench need
 *   --machine   also what boots a Debian of its own, for the test of the units
 *   --network   also what makes networks within this machine, for the test of a cluster of brokers
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';

const LEAST_NODE = [20, 18, 1];
const APT = '/usr/bin/apt-get';
const root = join(import.meta.dirname, '..', '..');
const dev = process.argv.includes('--dev');

checkNode();
installPackages();
installBroker();
if (dev) {
  installForTests('chromium', 'test/pages_*.test.ts');
  installForTests('logrotate', 'test/logrotate.*.ts');
  unpackPromtool();
}
if (process.argv.includes('--machine')) {
  installForTests('debootstrap', 'test/systemd.boot.ts');
  installForTests('systemd-nspawn', 'test/systemd.boot.ts', 'systemd-container');
}
if (process.argv.includes('--network')) installForTests('ip', 'test/nats_cluster.net.ts', 'iproute2');

function checkNode() {
  const version = process.versions.node.split('.').map(Number);
  const difference = LEAST_NODE.map((wanted, i) => version[i] - wanted).find((each) => each !== 0) ?? 0;
  if (difference < 0) stop(`Node ${LEAST_NODE.join('.')} or newer is needed, this is ${process.versions.node}`);
}

function installPackages() {
  const stamp = join(root, 'node_modules', '.marketprism-setup');
  const lock = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex');
  const done = existsSync(stamp) ? readFileSync(stamp, 'utf8') : '';
  // A checkout that has the development packages keeps them, whichever command comes next.
  const all = dev || done.endsWith(' dev');
  if (done === `${lock} dev` || (!all && done === `${lock} run`)) return;
  say(`installing packages${all ? ' with the development ones' : ''} (once; the database engine is 540 MB) …`);
  // Not `npm ci`: it refuses a lock file that lacks optional packages of other platforms, which some registries do not carry.
  // The versions are the lock file's all the same, and it is not rewritten. No package needs its install script.
  const flags = ['--no-save', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'];
  run('npm', ['install', ...flags, ...(all ? [] : ['--omit=dev'])]);
  writeFileSync(stamp, `${lock} ${all ? 'dev' : 'run'}`);
}

function installBroker() {
  // An own broker elsewhere needs no program here.
  if (isInstalled('nats-server') || (!dev && (process.env.MARKETPRISM_NATS_URL || process.env.NATS_URL))) return;
  const fault = installDebian('nats-server');
  if (fault === null) return;
  stop(
    `nats-server is missing: install nats-server (Debian: apt-get install nats-server), or set MARKETPRISM_NATS_URL to a running one (${fault})`,
  );
}

/** Programs that tests run for real: the browser for pages, logrotate for files. Who cannot get one is told, and keeps all other tests. */
function installForTests(program, tests, name = program) {
  if (isInstalled(program)) return;
  const fault = installDebian(name);
  if (fault !== null) say(`${program} is missing, and ${tests} fail without: apt-get install ${name} (${fault})`);
}

/** Installs a package of Debian. @returns null when it is there, else why not, in a line */
function installDebian(name) {
  if (process.getuid?.() !== 0 || !existsSync(APT)) return 'only root installs packages, and only on Debian';
  say(`installing ${name} …`);
  // Debian starts the server that it installs, on 4222 and without JetStream. A policy of 101 forbids that for this install.
  const policy = '/usr/sbin/policy-rc.d';
  const mine = !existsSync(policy);
  if (mine) {
    mkdirSync('/usr/sbin', { recursive: true });
    writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  }
  try {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const install = () => attempt(APT, ['-qq', '-y', 'install', '--no-install-recommends', name], { env });
    // Always renewed first: without that there may be no such package.
    const fault = attempt(APT, ['-qq', 'update'], { env }) ?? install();
    return fault === null ? null : lastLine(fault);
  } finally {
    if (mine) rmSync(policy);
  }
}

/**
 * The tests check the alert rules with promtool. It is taken out of Debian's package alone: installed, that would bring a server, its user,
 * its unit and eleven packages of web pages. Who has none and cannot get it is told, and keeps all other tests.
 */
function unpackPromtool() {
  const kept = join(root, 'node_modules', '.cache', 'marketprism', 'promtool');
  if (isInstalled('promtool') || existsSync(kept)) return;
  say('unpacking promtool from the package prometheus (once, 19 MB) …');
  const directory = `${kept}.unpacked`;
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  const fetch = () => attempt(APT, ['-qq', 'download', 'prometheus'], { cwd: directory });
  let fault = fetch();
  // Package lists that are absent or old are root's to renew.
  if (fault !== null && process.getuid?.() === 0) fault = attempt(APT, ['-qq', 'update']) ?? fetch();
  const [file] = readdirSync(directory).filter((name) => name.endsWith('.deb'));
  fault ??= attempt('dpkg-deb', ['--extract', `${file}`, '.'], { cwd: directory });
  if (fault === null) renameSync(join(directory, 'usr', 'bin', 'promtool'), kept);
  else
    say(`promtool is missing, and test/metrics.test.ts fails without: apt-get install prometheus (${lastLine(fault)})`);
  rmSync(directory, { recursive: true });
}

function isInstalled(program) {
  const places = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/bin'];
  return places.some((place) => existsSync(join(place, program)));
}

/** Runs a command quietly; its output is shown when it fails, and that is the end. */
function run(command, args, env = process.env) {
  const fault = attempt(command, args, { env });
  if (fault === null) return;
  process.stderr.write(fault);
  stop(`${command} ${args.join(' ')} failed`);
}

/** Runs a command. @returns null when it succeeded, else what it said */
function attempt(command, args, options) {
  const stdio = ['ignore', 'pipe', 'pipe'];
  const { status, error, stdout, stderr } = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    stdio,
    ...options,
  });
  return status === 0 ? null : `${stdout ?? ''}${stderr ?? ''}${error ? `${error.message}\n` : ''}`;
}

function lastLine(text) {
  return text.trim().split('\n').at(-1);
}

function say(line) {
  process.stderr.write(`setup: ${line}\n`);
}

function stop(line) {
  say(line);
  process.exit(1);
}
