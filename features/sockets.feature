Feature: Calls over a WebSocket are answered, each once, while nodes die and return
  A client holds one connection to the proxy, whatever connections the proxy has to nodes.

  Background:
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket

  Scenario Outline: Calls right after a switch when the primary <fails>
    Given the proxy runs
    And alice has a WebSocket
    And alice subscribes to newHeads
    And alice asks which node answers
    Then the client is answered by geth
    When geth <fails>
    And alice asks which node answers
    Then the client is answered by provider
    And every call of alice is answered with a result within <most> ms
    When geth is well again
    Then calls go to geth
    When alice asks which node answers
    Then the client is answered by geth

    @testnet
    Examples: On every network
      | fails                 | most |
      | goes down             | 1000 |
      | hangs                 | 3500 |

    Examples: Of pretend nodes
      | fails                 | most |
      | answers with HTTP 500 | 1000 |

  Scenario Outline: A hundred calls while the primary <fails> are all answered
    Given the proxy runs
    And alice has a WebSocket
    And alice subscribes to newHeads
    When alice begins to call 100 times, once every 5 ms
    And geth <fails>
    Then every call of alice is answered with a result
    And alice was answered 101 times in all
    And calls go to provider

    @testnet
    Examples: On every network
      | fails                             |
      | goes down                         |
      | hangs                             |

    Examples: Of pretend nodes
      | fails                             |
      | answers with HTTP 500             |
      | answers with garbage              |
      | breaks off in the middle of its answers |

  @testnet
  Scenario: Ids that are used again, also for subscriptions, are the client's own
    Given the proxy runs
    And alice has a WebSocket
    When alice sends:
      """
      {"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}
      """
    And alice sends:
      """
      {"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["logs",{}]}
      """
    And alice sends:
      """
      {"jsonrpc":"2.0","id":1,"method":"net_listening","params":[]}
      """
    Then the answer is, byte for byte:
      """
      {"jsonrpc":"2.0","id":1,"result":true}
      """
    When geth goes down
    And alice sends each of these at once, all with the id 1:
      | eth_chainId        |
      | eth_blockNumber    |
      | eth_gasPrice       |
      | web3_clientVersion |
    Then alice was answered 7 times in all
    When geth is well again
    Then calls go to geth
    When alice sends each of these at once, all with the id 1:
      | eth_chainId        |
      | eth_blockNumber    |
      | eth_gasPrice       |
      | web3_clientVersion |
    Then alice was answered 11 times in all
    And alice goes on to hear on all 2 subscriptions, by the ids that it was given

  Scenario: Every id comes back byte for byte, and a call without one is not answered
    Given the proxy runs
    And alice has a WebSocket
    When alice sends:
      """
      [{"jsonrpc":"2.0","id":18446744073709551617,"method":"eth_chainId"},{"jsonrpc":"2.0","method":"eth_chainId"},{"jsonrpc":"2.0","id":"ü\u00fc","method":"eth_chainId"},{"jsonrpc":"2.0","id":1.50,"method":"eth_chainId"},{"jsonrpc":"2.0","id":null,"method":"eth_chainId"}]
      """
    Then the answer is, byte for byte:
      """
      [{"jsonrpc":"2.0","id":18446744073709551617,"result":"0x539"},{"jsonrpc":"2.0","id":"ü\u00fc","result":"0x539"},{"jsonrpc":"2.0","id":1.50,"result":"0x539"},{"jsonrpc":"2.0","id":null,"result":"0x539"}]
      """

  @testnet
  Scenario: A client that sends binary messages is served with text
    Given the proxy runs
    And alice has a WebSocket, and sends binary messages
    And alice subscribes to newHeads
    And alice subscribes to logs
    And alice asks which node answers
    Then the client is answered by geth
    When geth goes down
    And 3 blocks are mined
    Then alice hears of the blocks 11,12,13, in this order
    When alice asks which node answers
    Then the client is answered by provider
    And alice goes on to hear on all 2 subscriptions, by the ids that it was given
    And alice has missed nothing, and heard nothing twice

  Scenario: A web page may connect only if the operator allows it
    Given the settings:
      | ws.allow_origins | ["https://app.example"] |
    And the proxy runs
    When a web page of https://evil.example asks for a WebSocket
    Then the client gets HTTP status 403
    When a web page of https://app.example asks for a WebSocket
    Then the client gets HTTP status 101
    Given alice has a WebSocket
    Then alice is connected

  Scenario: By default no web page may connect, and every other client may
    Given the proxy runs
    When a web page of http://localhost asks for a WebSocket
    Then the client gets HTTP status 403
    Given alice has a WebSocket
    Then alice is connected

  Scenario: A client that does not read is closed, and the others hear everything
    Given the settings:
      | ws.max_outbound | "256KiB" |
    And the proxy runs
    And alice has a WebSocket
    And alice subscribes to newHeads
    And alice subscribes to logs
    And bob has a WebSocket with a small buffer
    And bob subscribes 200 times to newHeads
    When bob stops reading
    And 60 blocks are mined, one every 20 ms
    Then the proxy closes 1 client that is too slow
    When bob reads on
    Then bob is closed with code 1008: "slow"
    When 3 blocks are mined
    Then alice has missed nothing, and heard nothing twice
    And alice is connected

  Scenario: WebSockets are closed with 1012 when the proxy goes down, after their calls are answered
    Given the settings:
      | health.timeout | "5s" |
      | shutdown_grace | "6s" |
    And the proxy runs as a process of its own
    And alice has a WebSocket
    And alice subscribes to newHeads
    And bob has a WebSocket
    And bob calls eth_gasPrice
    When geth answers 1000 ms late
    And bob sends 3 calls, and they have reached geth
    And the operator sends SIGTERM
    Then alice is closed with code 1012: "going down"
    And bob was answered 4 times before its connection ended
    And bob is closed with code 1012: "going down"
    And the process ends with exit code 0 within 5000 ms of the signal

  @testnet
  Scenario: A client that asks for too much is told so
    Given the settings:
      | ws.max_subscriptions | 2      |
      | ws.max_message       | "1KiB" |
    And the proxy runs
    And alice has a WebSocket
    And alice subscribes to newHeads
    And alice subscribes to logs
    When alice sends:
      """
      {"jsonrpc":"2.0","id":9,"method":"eth_subscribe","params":["newHeads"]}
      """
    Then the client gets error -32005 for the reason max_subscriptions
    When alice unsubscribes from newHeads, and is told true
    And alice subscribes to newHeads
    Then alice goes on to hear on all 2 subscriptions, by the ids that it was given
    Given bob has a WebSocket
    When bob sends a message of 1025 bytes
    Then bob is closed with code 1009: ""
    And alice is connected
