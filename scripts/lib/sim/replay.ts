import { OperatorError } from '../cli.ts';
import type { Product } from './binance.ts';
import type { Source, Wire } from './venue.ts';
export class Replay {
  static open(_p: Product, _n: string, _f: string, _w: Wire, _o: { speed: number | 'max'; dropDiff: number }): Source {
    throw new OperatorError('--replay is not available yet');
  }
}
