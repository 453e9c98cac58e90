import { between } from './quantile';

/** Steps of the floor between 0 and 1; a power of two, so that nothing is rounded. */
export const STEPS = 256;

/** The highest of the values from 0 to 1 that come: those that can be among the `needed` highest, and some more. */
export class Highest {
  readonly values: Float32Array;
  count = 0;
  /** What is below cannot be among the needed ones any more. */
  floor = 0;
  /** How many values lie in each step. */
  readonly steps = new Uint32Array(STEPS + 1);
  #needed = 0;
  #step = 0;
  #kept = 0; // values from the floor on

  constructor(most: number) {
    this.values = new Float32Array(most);
  }

  /** @param step below which values are left out: a guess, to be tried again from 0 if `isEnough` says no */
  begin(needed: number, step = 0): void {
    this.#needed = needed;
    this.count = this.#kept = 0;
    this.#step = step;
    this.floor = step / STEPS;
    this.steps.fill(0);
  }

  isEnough(): boolean {
    return this.#kept >= this.#needed;
  }

  /** Takes over that values up to `count` were added, each counted in its step. @returns the new floor */
  added(count: number): number {
    this.#kept += count - this.count;
    this.count = count;
    while (this.#kept - this.steps[this.#step]! >= this.#needed) this.#kept -= this.steps[this.#step++]!;
    return (this.floor = this.#step / STEPS);
  }

  /** Zeros, as many as are still needed. */
  fillUp(): void {
    if (this.#kept >= this.#needed) return;
    this.values.fill(0, this.count, this.count + this.#needed - this.#kept);
    this.count += this.#needed - this.#kept;
    this.#kept = this.#needed;
  }

  /** What lies `share` of the way from the needed-th highest to the next higher one. */
  result(share: number): number {
    // The needed-th highest lies in the lowest step that is kept; of what is above it only the lowest may matter.
    const { values, count, floor } = this;
    const top = floor + 1 / STEPS;
    let [kept, next] = [0, Infinity];
    for (let i = 0; i < count; i++) {
      const value = values[i]!;
      if (value < floor) continue;
      if (value < top) values[kept++] = value;
      else if (value < next) next = value;
    }
    const place = this.#kept - this.#needed;
    if (next < Infinity) values[kept++] = next;
    return between(values, 0, kept, place, share);
  }
}
