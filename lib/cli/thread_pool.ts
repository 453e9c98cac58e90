// Imported before all else, as libuv reads this when its pool is first used: images are decoded and resized there.
import { availableParallelism } from 'node:os';

process.env['UV_THREADPOOL_SIZE'] ??= String(Math.max(4, availableParallelism()));
// Read when the addon is loaded: fewer pools of memory than glibc's eight a core, which would each keep what passed through.
process.env['CELLCAM_MALLOC_ARENAS'] ??= '2';
