/** Who may read and write what. */
import { accessSync, constants, existsSync, lstatSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { environmentFrom } from '../systemd.ts';
import { type DiagnoseContext, type Finding, finding, ok, type Probe } from './finding.ts';
import { isSecret } from './secrets.ts';

const ENVIRONMENT_FILE = '/etc/marketprism/marketprism.env';
const OTHERS_READ = 0o004;
const OTHERS_WRITE = 0o002;
/** Below the data directory, so deep is looked for files of another owner. */
const DEPTH = 2;
const SHOWN = 3;

export const permissions: Probe = {
  area: 'permissions',
  async look(context) {
    return [...dataFindings(context), ...fileFindings(context)];
  },
};

function dataFindings({ set: { config }, services }: DiagnoseContext): Finding[] {
  const path = resolve(config.dataDir);
  if (!existsSync(path)) {
    let parent = dirname(path);
    while (!existsSync(parent)) parent = dirname(parent);
    return [isWritable(parent) ? ok(path, `is not there yet, and can be made`) : notWritable(path, parent)];
  }
  const { uid, gid, mode } = statSync(path);
  const told = `owner ${uid}:${gid}, mode ${(mode & 0o7777).toString(8)}`;
  const runners = [...new Set(services.flatMap(({ pid }) => (pid === null ? [] : (ownerOf(pid) ?? []))))];
  const others = runners.filter((each) => each !== uid && each !== 0);
  const strange = strangersIn(path, uid, DEPTH);
  return [
    ...(mode & OTHERS_WRITE
      ? [finding('warning', path, `everybody may write there (${told})`, `sudo chmod o-w ${path}`)]
      : []),
    ...(others.length > 0
      ? [
          finding(
            'error',
            path,
            `${told}, while services run as ${others.join(', ')}`,
            `sudo chown -R ${others[0]} ${path}`,
          ),
        ]
      : []),
    // Root writes anywhere: whether the services' own user could is then a question of the owner.
    ...(isWritable(path) ? [ok(path, `${told}, writable`)] : [notWritable(path, path)]),
    ...(strange.length === 0
      ? []
      : [
          finding(
            'warning',
            path,
            `${strange.length} files there are another user's: ${strange.slice(0, SHOWN).join(', ')}`,
            `sudo chown -R ${uid}:${gid} ${path}`,
          ),
        ]),
  ];
}

function notWritable(path: string, at: string): Finding {
  return finding(
    'error',
    path,
    `${at} cannot be written by this user (${process.getuid?.()})`,
    `sudo chown ${process.getuid?.()} ${at}`,
  );
}

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK | constants.X_OK);
    return true;
  } catch {
    // Whatever forbids it: it cannot be written.
    return false;
  }
}

function ownerOf(pid: number): number | null {
  return statSync(`/proc/${pid}`, { throwIfNoEntry: false })?.uid ?? null;
}

/** Such as a script that root ran once leaves: the services cannot write to them. */
function strangersIn(directory: string, uid: number, depth: number): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name);
    const owner = lstatSync(path, { throwIfNoEntry: false })?.uid ?? uid;
    const below = entry.isDirectory() && depth > 1 && isReadable(path) ? strangersIn(path, uid, depth - 1) : [];
    return owner === uid ? below : [path, ...below];
  });
}

function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.X_OK);
    return true;
  } catch {
    // It is another user's, which is what is looked for: its owner tells.
    return false;
  }
}

function fileFindings({ set: { units } }: DiagnoseContext): Finding[] {
  const files = new Set([ENVIRONMENT_FILE, ...units.flatMap(({ environmentFiles }) => environmentFiles)]);
  return [...files].filter((path) => existsSync(path)).map(judgeEnvironmentFile);
}

/** A file of variables: with a secret inside it is not for everybody to read. */
export function judgeEnvironmentFile(path: string): Finding {
  const { mode, uid, gid } = statSync(path);
  const told = `owner ${uid}:${gid}, mode ${(mode & 0o7777).toString(8)}`;
  if (!isReadableFile(path)) return ok(path, `${told}, not for this user to read`);
  const secrets = Object.entries(environmentFrom(readFileSync(path, 'utf8'))).flatMap(([name, value]) =>
    isSecret(name) && value !== '' ? name : [],
  );
  if (mode & OTHERS_READ && secrets.length > 0)
    return finding(
      'error',
      path,
      `everybody may read it, and it has ${secrets.join(', ')} (${told})`,
      `sudo chmod o-rwx ${path}`,
    );
  if (mode & OTHERS_WRITE)
    return finding('error', path, `everybody may write to it (${told})`, `sudo chmod o-w ${path}`);
  return ok(path, `${told}, ${secrets.length} secrets`);
}

function isReadableFile(path: string): boolean {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    // Kept from this user, as it should be from most.
    return false;
  }
}
