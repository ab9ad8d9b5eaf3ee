/** Small disks of their own for what must bear a full one: tmpfs, made full by taking their free space away. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, statfsSync } from 'node:fs';

export const DISKS = ['outbox', 'outbox_b', 'jetstream', 'clickhouse'] as const;
export type Disk = (typeof DISKS)[number];

const MIB = 2 ** 20;
/** Far above what a run of ten minutes writes; memory is taken only for what is written. */
const SIZE_BYTES = 3072 * MIB;
const LEAST_SPARE_BYTES = MIB / 16;
const MOST_SPARE_BYTES = 16 * MIB;

export class SmallDisk {
  private constructor(private readonly path: string) {}

  /** Mounts a disk at `path`. @throws when that is not allowed here */
  static mount(path: string): SmallDisk {
    mkdirSync(path, { recursive: true });
    run('mount', ['-t', 'tmpfs', '-o', `size=${SIZE_BYTES}`, 'marketprism-chaos', path]);
    return new SmallDisk(path);
  }

  /** From now on hardly a block is free. @throws when it cannot be made so small */
  fill(): void {
    for (let spare = LEAST_SPARE_BYTES; ; spare *= 2) {
      const { blocks, bfree, bsize } = statfsSync(this.path);
      try {
        this.resize((blocks - bfree) * bsize + spare);
        return;
      } catch (error) {
        // What was written meanwhile must fit, too.
        if (spare > MOST_SPARE_BYTES) throw error;
      }
    }
  }

  /** There is room again. */
  free(): void {
    this.resize(SIZE_BYTES);
  }

  unmount(): void {
    run('umount', ['-l', this.path]);
  }

  private resize(bytes: number): void {
    run('mount', ['-o', `remount,size=${bytes}`, this.path]);
  }
}

function run(command: string, args: string[]): void {
  try {
    execFileSync(command, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  } catch (error) {
    const said = String((error as { stderr?: Buffer }).stderr ?? '').trim();
    throw new Error(said || (error as Error).message);
  }
}
