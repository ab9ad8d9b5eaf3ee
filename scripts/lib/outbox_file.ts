/**
 * The outbox's files: records, the segments that hold them, and the floor. Append-only NDJSON; each record is a header line
 * `{"crc":"<8 hex>","bytes":<of the payload>,"rows":n,"at":<ms>,"subject":"…","id":"…"}` and the payload's lines.
 */
import { constants } from 'node:fs';
import { type FileHandle, open, readdir, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { z } from 'zod';
import { readJson } from './files.ts';
import type { Logger } from './log.ts';
import type { OutgoingMessage } from './publisher.ts';
import type { StoredMark } from './stream_watch.ts';

/** Closes a record. */
export const NEWLINE = Buffer.from('\n');
/** A header line is never longer, bytes: subject and id are a few hundred characters at most. */
const MAX_HEADER_BYTES = 64 * 1024;
const READ_BYTES = 1024 * 1024;
const HEADER_START = Buffer.from('{"crc":"');
/** `{"crc":"01234567",`: what the checksum does not cover. */
const CRC_BYTES = 18;
const TEXT = '"(?:[^"\\\\]|\\\\.)*"';
const HEADER = new RegExp(
  `^\\{"crc":"([0-9a-f]{8})","bytes":(\\d{1,12}),"rows":(\\d{1,12}),"at":(-?\\d{1,16}),"subject":(${TEXT}),"id":(${TEXT})\\}$`,
);
const SEGMENT_NAME = /^(\d{8,})\.ndjson$/;
const DAMAGED_NAME = /^damaged-(\d+)\.bin$/;
const FLOOR = z.object({
  segment: z.number().int().nonnegative(),
  offset: z.number().int().nonnegative(),
  clean: z.boolean(),
  stored: z.object({ seq: z.number().int().positive(), id: z.string(), broker: z.string() }).optional(),
});
/**
 * Where everything before is acknowledged; `clean`: the process ended by its own will; `stored`: the newest message that the broker had
 * acknowledged, no older than that place.
 */
export type Floor = z.infer<typeof FLOOR>;

/** What a broker had acknowledged, and which one it was: another one never had it. */
export interface EarlierMark extends StoredMark {
  broker: string;
}

/** A file. Positions within the whole outbox are bytes from the start of the first segment that this run found. */
export interface Segment {
  readonly number: number;
  /** Position of its first byte. */
  readonly base: number;
  /** Bytes, those still waiting to be written included. */
  size: number;
  /** When its first record was added, ms. */
  readonly firstAt: number;
  /** When its newest record was added at the latest, ms. */
  lastAt: number;
}

/** @returns the position after the segment's last byte */
export function endOf(segment: Segment): number {
  return segment.base + segment.size;
}

export function segmentPath(dir: string, number: number): string {
  return join(dir, `${String(number).padStart(8, '0')}.ndjson`);
}

/** A record's header line; the payload and NEWLINE follow it in the file. @param at when the message was added, ms */
export function headerOf(message: OutgoingMessage, at: number): Buffer {
  const { payload, rows, subject, id } = message;
  const members = `"bytes":${payload.length},"rows":${rows},"at":${at},"subject":${JSON.stringify(subject)},"id":${JSON.stringify(id)}`;
  const crc = crc32(payload, crc32(members)).toString(16).padStart(8, '0');
  return Buffer.from(`{"crc":"${crc}",${members}}\n`);
}

/** A record as it was read. */
export interface StoredRecord {
  message: OutgoingMessage;
  /** When it was added, ms. */
  at: number;
  /** Header and payload with their newlines. */
  bytes: number;
}

/** What begins at a place: a record, one that goes on beyond the buffer (`bytes` may tell it), or neither. */
type Reading = { kind: 'record'; record: StoredRecord } | { kind: 'short'; bytes: number } | { kind: 'bad' };

function readRecord(buffer: Buffer, offset: number): Reading {
  const lineEnd = buffer.indexOf(10, offset);
  if (lineEnd < 0) {
    return buffer.length - offset < MAX_HEADER_BYTES ? { kind: 'short', bytes: MAX_HEADER_BYTES } : { kind: 'bad' };
  }
  if (lineEnd - offset >= MAX_HEADER_BYTES) return { kind: 'bad' };
  const found = HEADER.exec(buffer.toString('utf8', offset, lineEnd));
  if (!found) return { kind: 'bad' };
  const [, crc, length, rows, at, subject, id] = found as unknown as [
    string,
    string,
    string,
    string,
    string,
    ...string[],
  ];
  const start = lineEnd + 1;
  const end = start + Number(length);
  if (end + 1 > buffer.length) return { kind: 'short', bytes: end + 1 - offset };
  const payload = buffer.subarray(start, end);
  const covered = crc32(payload, crc32(buffer.subarray(offset + CRC_BYTES, lineEnd - 1)));
  if (covered !== Number.parseInt(crc, 16) || buffer[end] !== 10) return { kind: 'bad' };
  const message = { subject: JSON.parse(subject!), payload, rows: Number(rows), id: JSON.parse(id!) };
  return { kind: 'record', record: { message, at: Number(at), bytes: end + 1 - offset } };
}

/** @returns where the next record begins that checks, from `offset` on; the buffer's length when there is none */
function findRecord(buffer: Buffer, offset: number): number {
  // Searched for anywhere, not after a newline only: it may be the newline that is damaged.
  for (let at = offset; (at = buffer.indexOf(HEADER_START, at)) >= 0; at += 1) {
    if (readRecord(buffer, at).kind === 'record') return at;
  }
  return buffer.length;
}

/** Bytes that are no record; some of them may not be in the file at all, and so not in `content`. */
export interface Damage {
  bytes: number;
  content: Buffer;
}

/** Either records, or what lies before the next one. */
export interface Chunk {
  records: StoredRecord[];
  damaged: Damage | null;
}

/**
 * Whole records from `offset` on: what fits into `buffer`, at least one. Their payloads are copies, so that one message that
 * stays does not hold the whole buffer.
 * @param available bytes of the file from `offset` on that count
 */
export async function readChunk(path: string, offset: number, available: number, buffer: Buffer): Promise<Chunk> {
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return { records: [], damaged: { bytes: available, content: Buffer.alloc(0) } };
  }
  try {
    let bytes = await readFully(file, buffer.subarray(0, Math.min(buffer.length, available)), offset);
    let first = readRecord(bytes, 0);
    while (first.kind === 'short' && bytes.length < Math.min(first.bytes, available)) {
      const { length } = bytes;
      bytes = await readFully(file, Buffer.allocUnsafeSlow(Math.min(first.bytes, available)), offset);
      if (bytes.length === length) break;
      first = readRecord(bytes, 0);
    }
    if (first.kind === 'record') return { records: recordsIn(bytes, first), damaged: null };
    // No longer than a segment, so it is looked through in one piece.
    const rest = await readFully(file, Buffer.allocUnsafeSlow(available), offset);
    const next = rest.length === 0 ? 0 : findRecord(rest, 1);
    return {
      records: [],
      damaged: { bytes: next < rest.length ? next : available, content: rest.subarray(0, next) },
    };
  } finally {
    await file.close();
  }
}

/** The payload of the newest record of a subject, in the newest of these files that has one; null when none has. */
export async function newestPayload(
  dir: string,
  segments: readonly Segment[],
  subject: string,
): Promise<Uint8Array | null> {
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  for (const { number, size } of [...segments].reverse()) {
    let newest: Uint8Array | null = null;
    for (let offset = 0; offset < size; ) {
      const { records, damaged } = await readChunk(segmentPath(dir, number), offset, size - offset, buffer);
      for (const { message, bytes } of records) {
        if (message.subject === subject) newest = message.payload;
        offset += bytes;
      }
      offset += damaged?.bytes ?? 0;
    }
    if (newest !== null) return newest;
  }
  return null;
}

function recordsIn(bytes: Buffer, first: Reading): StoredRecord[] {
  const records: StoredRecord[] = [];
  let offset = 0;
  for (let reading = first; reading.kind === 'record'; reading = readRecord(bytes, offset)) {
    const { message, at, bytes: length } = reading.record;
    records.push({ message: { ...message, payload: Buffer.from(message.payload) }, at, bytes: length });
    offset += length;
    if (offset === bytes.length) break;
  }
  return records;
}

/** @returns the part of `buffer` that the file filled */
async function readFully(file: FileHandle, buffer: Buffer, offset: number): Promise<Buffer> {
  let filled = 0;
  while (filled < buffer.length) {
    const { bytesRead } = await file.read(buffer, filled, buffer.length - filled, offset + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return buffer.subarray(0, filled);
}

/** What a run finds. */
export interface Found {
  segments: Segment[];
  /** Position of the floor. */
  floor: number;
  wasClean: boolean;
  stored: EarlierMark | null;
  /** Numbers of the next segment and of the next file of damaged bytes. */
  nextNumber: number;
  nextDamaged: number;
}

/**
 * Reads a directory of an earlier run; cuts off what its last file ends with that is no record.
 * @param rotateMs no record of a segment is further from its first one, ms
 * @param now stands for times that cannot be read, ms
 */
export async function readDirectory(dir: string, rotateMs: number, now: number, log: Logger): Promise<Found> {
  const names = await readdir(dir);
  const numbers = numbersIn(names, SEGMENT_NAME);
  const segments: Segment[] = [];
  let base = 0;
  for (const number of numbers) {
    const path = segmentPath(dir, number);
    if (number === numbers.at(-1)) await cutTornTail(path, log);
    const { size } = await stat(path);
    const firstAt = await firstTime(path, size, now);
    segments.push({ number, base, size, firstAt, lastAt: size === 0 ? firstAt : firstAt + rotateMs });
    base += size;
  }
  const floor = readFloor(dir, log);
  return {
    segments,
    floor: floor ? positionOf(segments, floor) : 0,
    wasClean: floor ? floor.clean : numbers.length === 0 && !names.includes('floor.json'),
    stored: floor?.stored ?? null,
    // Never one that the floor speaks of: what is written there would count as acknowledged.
    nextNumber: Math.max(numbers.at(-1) ?? 0, floor?.segment ?? 0) + 1,
    nextDamaged: Math.max(0, ...numbersIn(names, DAMAGED_NAME)) + 1,
  };
}

function numbersIn(names: string[], pattern: RegExp): number[] {
  return names
    .flatMap((name) => pattern.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
}

function positionOf(segments: Segment[], { segment, offset }: Floor): number {
  const found = segments.find(({ number }) => number >= segment);
  if (!found) return segments.length === 0 ? 0 : endOf(segments.at(-1)!);
  return found.number === segment ? found.base + Math.min(offset, found.size) : found.base;
}

async function cutTornTail(path: string, log: Logger): Promise<void> {
  const file = await open(path, 'r+');
  try {
    const bytes = await readFully(file, Buffer.allocUnsafeSlow((await file.stat()).size), 0);
    let end = 0;
    while (end < bytes.length) {
      const reading = readRecord(bytes, end);
      const next = reading.kind === 'record' ? end + reading.record.bytes : findRecord(bytes, end + 1);
      // What is damaged before a record that checks is kept until it is read back.
      if (reading.kind !== 'record' && next === bytes.length) break;
      end = next;
    }
    if (end < bytes.length) {
      await file.truncate(end);
      log.warn({ event: 'outbox_torn_tail', file: path, offset: end, bytes: bytes.length - end });
    }
    // What a killed process has written may still be in the kernel only.
    await file.datasync();
  } finally {
    await file.close();
  }
}

async function firstTime(path: string, size: number, now: number): Promise<number> {
  if (size === 0) return Number.NEGATIVE_INFINITY;
  const file = await open(path, 'r');
  try {
    const start = await readFully(file, Buffer.allocUnsafeSlow(Math.min(size, MAX_HEADER_BYTES)), 0);
    const header = HEADER.exec(start.toString('utf8', 0, Math.max(0, start.indexOf(10))));
    return header ? Number(header[4]) : now;
  } finally {
    await file.close();
  }
}

/** @returns null when there is none, or none that can be read: everything is published again then */
function readFloor(dir: string, log: Logger): Floor | null {
  const path = join(dir, 'floor.json');
  try {
    const value = readJson(path);
    return value === null ? null : FLOOR.parse(value);
  } catch (error) {
    log.error({ event: 'outbox_floor_unread', file: path, err: error }, 'everything in the outbox is published again');
    return null;
  }
}

/** Replaces the floor: temp file, fdatasync, rename; unlike writeJsonAtomic, the event loop goes on meanwhile. */
export async function writeFloor(dir: string, floor: Floor): Promise<void> {
  const path = join(dir, 'floor.json');
  await writeSynced(`${path}.tmp`, Buffer.from(`${JSON.stringify(floor)}\n`));
  await rename(`${path}.tmp`, path);
}

/** Keeps bytes that are no record, for a human to look at. @returns the file's path */
export async function keepDamaged(dir: string, number: number, content: Buffer): Promise<string> {
  const path = join(dir, `damaged-${number}.bin`);
  await writeSynced(path, content);
  return path;
}

async function writeSynced(path: string, content: Buffer): Promise<void> {
  const file = await open(path, 'w');
  try {
    await file.writeFile(content);
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** Opens a segment for writing at given places; it and its name are on the disk then. */
export async function openSegment(dir: string, number: number): Promise<FileHandle> {
  const file = await open(segmentPath(dir, number), constants.O_CREAT | constants.O_WRONLY, 0o644);
  try {
    const directory = await open(dir, 'r');
    await directory.sync().finally(() => directory.close());
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}
