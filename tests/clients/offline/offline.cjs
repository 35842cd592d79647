// Nothing leaves this machine: what a Node program asks of another one is refused, and noted in $HUGINN_ASKED.
const dns = require('node:dns')
const fs = require('node:fs')
const net = require('node:net')

const HERE = new Set(['localhost', '127.0.0.1', '::1', undefined])

function expectHere(host) {
  if (HERE.has(host)) return
  fs.appendFileSync(process.env.HUGINN_ASKED, `node ${host}\n`)
  throw new Error(`the tests are offline, and this asks for ${host}`)
}

const { connect } = net.Socket.prototype
net.Socket.prototype.connect = function (...args) {
  const options = Array.isArray(args[0]) ? args[0][0] : args[0]
  expectHere(typeof options === 'object' ? options.host : args[1])
  return connect.apply(this, args)
}

const { lookup } = dns
dns.lookup = function (host, ...rest) {
  expectHere(host)
  return lookup.call(this, host, ...rest)
}
