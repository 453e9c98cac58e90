// Imported before all else, as libuv reads this when its pool is first used: images are decoded and resized there.
import { availableParallelism } from 'node:os';

process.env['UV_THREADPOOL_SIZE'] ??= String(Math.max(4, availableParallelism()));
