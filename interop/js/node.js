// A js-libp2p node on loopback, steered over stdin and stdout by src/js_node.rs: one JSON object a line.
//
// The argument is what it listens on and dials with: tcp-noise, tcp-tls or quic. The first line out is {id, address}; then each
// {n, do, ...} in is answered by {n, ok} or {n, error}, in any order. When stdin ends, so does the node.
//
// The protocols are those of src/service.rs and src/roles.rs, which say what each side does.

import { createHash } from 'node:crypto'
import { createInterface } from 'node:readline'
import { noise } from '@chainsafe/libp2p-noise'
import { quic } from '@chainsafe/libp2p-quic'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { byteStream, lpStream } from '@libp2p/utils'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const AGENT = 'interop-js-libp2p/3.3'
const PREFIXED = '/strait-interop/prefixed/1'
const HALF_CLOSED = '/strait-interop/half-closed/1'
const LAST_WORD = '/strait-interop/last-word/1'
const HEARD = '/strait-interop/heard/1'
const TRANSFER = '/strait-interop/transfer/1'
const ECHO = '/strait-interop/echo/1'

const REQUEST_BYTES_MAX = 256 << 10
const REPLY_BYTES_MAX = 1 << 20
const BLOCK_BYTES = 64 << 10
const AFTER_END_BYTES = 1 << 20
const STREAMS = 100
const ECHO_FIRST_BYTES = 1 << 10
const ECHO_BYTES = 16 << 10
const FAREWELL = Buffer.from('nothing more from here')
const TICKET = Buffer.from('a ticket')

// More than the tests have open at once.
const limits = { maxInboundStreams: 256, maxOutboundStreams: 256 }

const WAYS = {
  'tcp-noise': { listen: '/ip4/127.0.0.1/tcp/0', transports: [tcp()], connectionEncrypters: [noise()], streamMuxers: [yamux()] },
  'tcp-tls': { listen: '/ip4/127.0.0.1/tcp/0', transports: [tcp()], connectionEncrypters: [tls()], streamMuxers: [yamux()] },
  quic: { listen: '/ip4/127.0.0.1/udp/0/quic-v1', transports: [quic()] }
}

const { listen, ...way } = WAYS[process.argv[2]]
const node = await createLibp2p({
  ...way,
  addresses: { listen: [listen] },
  nodeInfo: { userAgent: AGENT },
  services: { identify: identify(), ping: ping() }
})

// ---- Bytes ----

function block (index) {
  const bytes = Buffer.allocUnsafe(BLOCK_BYTES)
  for (let at = 0; at < BLOCK_BYTES; at++) bytes[at] = at % 251
  bytes.writeBigUInt64BE(BigInt(index))
  return bytes
}

function filler (bytes) {
  const blocks = Array.from({ length: Math.ceil(bytes / BLOCK_BYTES) }, (_, index) => block(index))
  return Buffer.concat(blocks).subarray(0, bytes)
}

class Receipt {
  bytes = 0
  hash = createHash('sha256')

  add (part) {
    this.bytes += part.byteLength
    this.hash.update(part)
  }

  finish () {
    const head = Buffer.alloc(8)
    head.writeBigUInt64BE(BigInt(this.bytes))
    return Buffer.concat([head, this.hash.digest()])
  }
}

function receiptOf (bytes) {
  const receipt = new Receipt()
  receipt.add(bytes)
  return receipt.finish()
}

function same (what, found, expected) {
  if (Buffer.compare(found, expected) !== 0) {
    throw new Error(`${what}: ${found.length} bytes came that are not the ${expected.length} expected ones`)
  }
}

// ---- Streams ----

// Reads to the end of the other direction, and hands each part on.
async function drain (bytes, take) {
  for (let part = await bytes.read(); part != null; part = await bytes.read()) {
    await take(part.subarray())
  }
}

async function readAll (bytes) {
  const parts = []
  await drain(bytes, part => { parts.push(part) })
  return Buffer.concat(parts)
}

async function readReceipt (bytes) {
  const receipt = new Receipt()
  await drain(bytes, part => receipt.add(part))
  return receipt.finish()
}

function answer (request) {
  if (request.length === 12 && request.subarray(0, 4).toString('latin1') === 'want') {
    const length = Number(request.readBigUInt64BE(4))
    return Buffer.from(Uint8Array.from({ length }, (_, index) => (index * 31 + length) % 64))
  }
  return Buffer.from(request.map(byte => byte ^ 0xa5))
}

const heard = new Map()

function whatWasHeard (ticket) {
  const name = ticket.toString('hex')
  if (!heard.has(name)) heard.set(name, Promise.withResolvers())
  return heard.get(name)
}

const RESPONDERS = {
  async [PREFIXED] (stream) {
    const messages = lpStream(stream, { maxDataLength: REQUEST_BYTES_MAX })
    const request = Buffer.from((await messages.read()).subarray())
    await messages.write(answer(request))
  },
  async [HALF_CLOSED] (stream) {
    const bytes = byteStream(stream)
    await bytes.write(await readReceipt(bytes))
    await bytes.write(filler(AFTER_END_BYTES))
  },
  async [LAST_WORD] (stream) {
    const bytes = byteStream(stream)
    const ticket = Buffer.from((await bytes.read({ bytes: 8 })).subarray())
    await bytes.write(FAREWELL)
    await stream.close()
    whatWasHeard(ticket).resolve(await readReceipt(bytes))
  },
  async [HEARD] (stream) {
    const bytes = byteStream(stream)
    const ticket = await readAll(bytes)
    await bytes.write(await whatWasHeard(ticket).promise)
  },
  async [TRANSFER] (stream) {
    const bytes = byteStream(stream)
    await bytes.write(await readReceipt(bytes))
  },
  async [ECHO] (stream) {
    const bytes = byteStream(stream)
    await drain(bytes, part => bytes.write(part))
  }
}

for (const [protocol, respond] of Object.entries(RESPONDERS)) {
  await node.handle(protocol, async stream => {
    try {
      await respond(stream)
      await stream.close()
    } catch (error) {
      console.error(`the responder of ${protocol}:`, error)
      stream.abort(error)
    }
  }, limits)
}

const ROLES = {
  async halfClosed (open) {
    const stream = await open(HALF_CLOSED)
    const bytes = byteStream(stream)
    const question = filler(1000)
    await bytes.write(question)
    await stream.close()
    same('the answer', await readAll(bytes), Buffer.concat([receiptOf(question), filler(AFTER_END_BYTES)]))
  },
  async lastWord (open) {
    const stream = await open(LAST_WORD)
    const bytes = byteStream(stream)
    await bytes.write(TICKET)
    same('the farewell', await readAll(bytes), FAREWELL)
    const rest = filler(AFTER_END_BYTES)
    await bytes.write(rest)
    await stream.close()
    const asking = await open(HEARD)
    const answers = byteStream(asking)
    await answers.write(TICKET)
    await asking.close()
    same('the receipt of what followed the other direction\'s end', await readAll(answers), receiptOf(rest))
  },
  async transfer (open, { bytes: total }) {
    const stream = await open(TRANSFER)
    const bytes = byteStream(stream)
    const receipt = new Receipt()
    const whole = block(0)
    for (let index = 0; receipt.bytes < total; index++) {
      // What was given away must not change.
      const part = Buffer.from(whole.subarray(0, Math.min(BLOCK_BYTES, total - receipt.bytes)))
      part.writeBigUInt64BE(BigInt(index))
      receipt.add(part)
      await bytes.write(part)
    }
    await stream.close()
    same('the receipt', await readAll(bytes), receipt.finish())
  },
  async parallel (open) {
    const all = Promise.withResolvers()
    const expected = filler(ECHO_BYTES)
    let there = 0
    const one = async () => {
      const stream = await open(ECHO)
      const bytes = byteStream(stream)
      await bytes.write(expected.subarray(0, ECHO_FIRST_BYTES))
      const first = await bytes.read({ bytes: ECHO_FIRST_BYTES })
      if (++there === STREAMS) all.resolve()
      await all.promise
      await bytes.write(expected.subarray(ECHO_FIRST_BYTES))
      await stream.close()
      same('the echo', Buffer.concat([first.subarray(), await readAll(bytes)]), expected)
    }
    await Promise.all(Array.from({ length: STREAMS }, one))
  }
}

// ---- What the tests ask for ----

const identified = new Map()
let closed = 0
node.addEventListener('peer:identify', event => identified.set(event.detail.peerId.toString(), event.detail))
node.addEventListener('connection:close', () => closed++)

// Generous: it only keeps a broken run from hanging.
const BOUND_MS = 20_000

async function until (what, found) {
  for (const end = Date.now() + BOUND_MS; Date.now() < end;) {
    const value = found()
    if (value != null) return value
    await new Promise(resolve => setTimeout(resolve, 10))
  }
  throw new Error(`waited ${BOUND_MS} ms in vain for ${what}`)
}

function peerIdOf (name) {
  const connection = node.getConnections().find(connection => connection.remotePeer.toString() === name)
  if (connection == null) throw new Error(`not connected to ${name}`)
  return connection.remotePeer
}

const COMMANDS = {
  async dial ({ peer, address }) {
    await node.dial(multiaddr(`${address}/p2p/${peer}`))
  },
  async identified ({ peer }) {
    const found = await until('identify', () => identified.get(peer))
    return {
      agent: found.agentVersion,
      protocols: found.protocols,
      listens: found.listenAddrs.map(String),
      observed: found.observedAddr?.toString()
    }
  },
  async ping ({ peer }) {
    await node.services.ping.ping(peerIdOf(peer))
  },
  async ask ({ peer, body }) {
    const stream = await node.dialProtocol(peerIdOf(peer), PREFIXED, limits)
    const messages = lpStream(stream, { maxDataLength: REPLY_BYTES_MAX })
    await messages.write(Buffer.from(body, 'hex'))
    const reply = await messages.read()
    await stream.close()
    return Buffer.from(reply.subarray()).toString('hex')
  },
  async play ({ peer, role, ...how }) {
    await ROLES[role](protocol => node.dialProtocol(peerIdOf(peer), protocol, limits), how)
  },
  async closed () {
    return closed
  }
}

function say (line) {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

say({ id: node.peerId.toString(), address: node.getMultiaddrs()[0].toString() })

for await (const line of createInterface({ input: process.stdin })) {
  const { n, do: what, ...how } = JSON.parse(line)
  COMMANDS[what](how).then(
    ok => say({ n, ok: ok ?? null }),
    error => say({ n, error: `${error.name}: ${error.message}` })
  )
}
process.exit(0)
