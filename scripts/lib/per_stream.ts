/** Something of each stream of an exchange, found without building a text: that is done for each row. */
import type { DataType } from './rows.ts';

export class PerStream<V> {
  private readonly types = new Map<DataType, Map<string, V>>();

  /** @param instrument the venue's id */
  get(type: DataType, instrument: string): V | undefined {
    return this.types.get(type)?.get(instrument);
  }

  set(type: DataType, instrument: string, value: V): void {
    let ofType = this.types.get(type);
    if (ofType === undefined) this.types.set(type, (ofType = new Map()));
    ofType.set(instrument, value);
  }

  /** Of one type, or of all. */
  values(type?: DataType): V[] {
    const maps = type === undefined ? [...this.types.values()] : [this.types.get(type) ?? new Map<string, V>()];
    return maps.flatMap((each) => [...each.values()]);
  }
}
