Feature: A client's subscriptions are its own, whatever becomes of the nodes
  Ids last for the subscription's life, blocks and logs come once and in order, and an announced block can be fetched.

  Scenario Outline: Subscriptions of several clients keep their ids over a switch and back when the primary <fails>
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket
    And the proxy runs
    And alice has a WebSocket
    And alice subscribes to newHeads
    And alice subscribes to logs
    And alice subscribes to logs of contract 1
    And alice subscribes to logs of contract 2
    And alice subscribes to newPendingTransactions
    And alice fetches every block that it hears of
    And bob has a WebSocket
    And bob subscribes to newHeads
    And bob subscribes to newHeads
    Then alice was given 5 subscriptions, with different ids
    And alice goes on to hear on all 5 subscriptions, by the ids that it was given
    When geth <fails>
    Then calls go to provider
    And alice goes on to hear on all 5 subscriptions, by the ids that it was given
    And bob goes on to hear on all 2 subscriptions, by the ids that it was given
    When geth is well again
    Then calls go to geth
    And alice goes on to hear on all 5 subscriptions, by the ids that it was given
    And bob goes on to hear on all 2 subscriptions, by the ids that it was given
    And alice has missed nothing, and heard nothing twice
    And bob has missed nothing, and heard nothing twice

    @testnet
    Examples: On every network
      | fails                 |
      | goes down             |
      | hangs                 |

    Examples: Of pretend nodes
      | fails                 |
      | answers with HTTP 500 |

  Scenario Outline: Missed blocks come first, in order, when the primary <fails>
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket
    And the proxy runs
    And alice has a WebSocket
    And alice subscribes to newHeads
    And alice subscribes to logs
    And alice fetches every block that it hears of
    When 1 block is mined
    Then alice hears of the blocks 11, in this order
    When geth <fails>
    And 5 blocks are mined
    Then alice hears of the blocks 11,12,13,14,15,16, in this order
    And alice has missed nothing, and heard nothing twice

    @testnet
    Examples: On every network
      | fails                                   |
      | goes down                               |
      | hangs                                   |

    Examples: Of pretend nodes
      | fails                                   |
      | answers with HTTP 500                   |
      | answers with garbage                    |
      | falls silent on its streams             |

  @testnet
  Scenario: Back on the primary while subscribed, without a gap and without a repeat
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket
    And a block every 100 ms
    And the proxy runs
    And alice has a WebSocket
    And alice subscribes to newHeads
    And alice subscribes to logs
    And alice fetches every block that it hears of
    When alice has heard of 3 more blocks
    And geth goes down
    Then alice hears of 5 more blocks
    And calls go to provider
    When geth is well again
    Then calls go to geth
    And alice hears of 5 more blocks
    When geth goes down
    Then alice hears of 5 more blocks
    And calls go to provider
    When geth is well again
    Then calls go to geth
    And alice hears of 5 more blocks
    And alice has missed nothing, and heard nothing twice

  Scenario: No client sees an answer to the proxy's own subscriptions
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket
    And a block every 100 ms
    And the proxy runs
    And geth gives out small subscription ids
    And provider gives out small subscription ids
    And alice has a WebSocket
    And alice subscribes to newPendingTransactions
    And alice subscribes to newHeads
    And alice subscribes to logs
    When alice begins to call 300 times, once every 10 ms
    And geth goes down
    Then calls go to provider
    When geth is well again
    Then calls go to geth
    When geth goes down
    Then calls go to provider
    When geth comes up again, but loses its answers to eth_subscribe
    Then geth is asked for eth_subscribe and its answer is lost, 3 times
    When geth is well again
    Then calls go to geth
    When provider goes down
    And geth hangs
    And provider is well again
    Then calls go to provider
    When geth is well again
    Then calls go to geth
    And every call of alice is answered with a result
    And alice was answered 303 times in all
    And alice goes on to hear on all 3 subscriptions, by the ids that it was given
    And alice has missed nothing, and heard nothing twice

  @testnet
  Scenario: Both nodes are down for a while
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket
    And the proxy runs
    And alice has a WebSocket
    And alice subscribes to newHeads
    And alice subscribes to logs
    When 1 block is mined
    Then alice hears of the blocks 11, in this order
    When geth goes down
    And provider goes down
    Then geth is found down
    And provider is found down
    When 4 blocks are mined
    And provider is well again
    Then alice hears of the blocks 11,12,13,14,15, in this order
    And alice has missed nothing, and heard nothing twice

  @testnet
  Scenario: The stand-by is behind when the primary is lost
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket
    And the proxy runs
    And alice has a WebSocket
    And alice subscribes to newHeads
    And alice subscribes to logs
    When provider falls 3 blocks behind
    And 4 blocks are mined
    Then alice hears of the blocks 11,12,13,14, in this order
    When geth goes down
    Then calls go to provider
    When 5 blocks are mined, one every 100 ms
    And provider is well again
    Then alice hears of the blocks 11,12,13,14,15,16,17,18,19, in this order
    And alice has missed nothing, and heard nothing twice

  @testnet
  Scenario: Logs that a reorganisation takes out during a switch are taken back, newest block first
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket
    And the proxy runs
    And alice has a WebSocket
    And alice subscribes to newHeads
    And alice subscribes to logs
    When 4 blocks are mined, one every 20 ms
    Then alice has missed nothing, and heard nothing twice
    When geth goes down
    And the chain's last 3 blocks are replaced
    Then the logs of the blocks 14,13,12 are taken back from alice, in this order
    And alice hears of the blocks 11,12,13,14,12,13,14,15, in this order
    And alice has missed nothing, and heard nothing twice
    When geth is well again
    Then calls go to geth
    When 1 block is mined
    Then alice hears of the blocks 11,12,13,14,12,13,14,15,16, in this order
    And alice has missed nothing, and heard nothing twice

  Scenario: After a gap beyond the limit logs are closed, and heads go on
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket
    And the settings:
      | chain.max_backfill | 8 |
    And the proxy runs
    And alice has a WebSocket
    And alice subscribes to newHeads
    And bob has a WebSocket
    And bob subscribes to newHeads
    And bob subscribes to logs
    When 1 block is mined
    Then alice hears of the blocks 11, in this order
    And bob has missed nothing, and heard nothing twice
    When geth goes down
    And provider goes down
    Then geth is found down
    And provider is found down
    When 8 blocks are mined
    And provider is well again
    Then alice hears of the blocks 11,12,13,14,15,16,17,18,19, in this order
    And bob has missed nothing, and heard nothing twice
    When provider goes down
    Then provider is found down
    When 9 blocks are mined
    And provider is well again
    Then bob is closed with code 1013: "gap"
    And alice hears of a gap up to block 28, and of every block after it
    And the proxy has skipped 1 gap
    Given bob has a WebSocket
    And bob subscribes to logs
    When 2 blocks are mined
    Then bob has missed nothing, and heard nothing twice

  @testnet
  Scenario: A batch of subscriptions is answered whole before any of them is heard
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket
    And the proxy runs
    And alice has a WebSocket
    When alice sends:
      """
      [{"jsonrpc":"2.0","id":"a","method":"eth_subscribe","params":["newHeads"]},
       {"jsonrpc":"2.0","id":"b","method":"eth_chainId","params":[]},
       {"jsonrpc":"2.0","id":"c","method":"eth_subscribe","params":["logs",{}]},
       {"jsonrpc":"2.0","id":"d","method":"eth_subscribe","params":["newPendingTransactions"]}]
      """
    Then the answer is one batch of the ids "a","b","c","d"
    And alice goes on to hear on all 3 subscriptions, by the ids that it was given
    When alice sends 20 batches of a call and two subscriptions, while blocks are mined
    Then alice was given 43 subscriptions, with different ids
    When geth goes down
    Then alice goes on to hear on all 43 subscriptions, by the ids that it was given
    And alice has missed nothing, and heard nothing twice

  @testnet
  Scenario: To unsubscribe ends it, once
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket
    And the proxy runs
    And alice has a WebSocket
    And alice subscribes to newHeads
    And alice subscribes to logs
    Then alice goes on to hear on all 2 subscriptions, by the ids that it was given
    When geth goes down
    Then calls go to provider
    When alice unsubscribes from logs, and is told true
    And alice unsubscribes from the same once more, and is told false
    And alice unsubscribes by the id "0x1", and is told false
    And alice unsubscribes by the id "nonsense", and is told false
    And 3 blocks are mined
    Then alice goes on to hear on all 1 subscriptions, by the ids that it was given
    And alice has missed nothing, and heard nothing twice
    When alice unsubscribes from newHeads, and is told true
    And 3 blocks are mined
    Then the pool's head is the chain's
    And alice is connected

  Scenario: Nodes without a WebSocket serve subscriptions all the same
    Given a primary geth
    And a backup provider
    And a block every 200 ms
    And the proxy runs
    And alice has a WebSocket
    And alice subscribes to newHeads
    And alice subscribes to logs
    And alice fetches every block that it hears of
    When alice has heard of 3 more blocks
    And geth goes down
    Then alice hears of 3 more blocks
    And calls go to provider
    When geth is well again
    Then calls go to geth
    And alice hears of 3 more blocks
    And alice has missed nothing, and heard nothing twice
    And no node was asked for anything over a WebSocket

  Scenario: Nodes with nothing but a WebSocket serve calls and subscriptions
    Given a primary geth with nothing but a WebSocket
    And a backup provider with nothing but a WebSocket
    And a block every 100 ms
    And the proxy runs
    And clients call without pause
    And alice has a WebSocket
    And alice subscribes to newHeads
    And alice subscribes to logs
    And alice fetches every block that it hears of
    When alice begins to call 200 times, once every 10 ms
    And alice has heard of 3 more blocks
    And geth goes down
    Then alice hears of 3 more blocks
    And calls go to provider
    When geth is well again
    Then calls go to geth
    When geth hangs
    Then alice hears of 3 more blocks
    And calls go to provider
    When geth is well again
    Then calls go to geth
    And alice hears of 3 more blocks
    And every call was answered
    And every call of alice is answered with a result
    And alice has missed nothing, and heard nothing twice
    And no node was asked for anything over HTTP

  Scenario: A reload keeps subscriptions, also when it replaces the node that serves them
    Given a primary geth with a WebSocket
    And the proxy runs
    And alice has a WebSocket
    And alice subscribes to newHeads
    And alice subscribes to logs
    And alice subscribes to newPendingTransactions
    Then alice goes on to hear on all 3 subscriptions, by the ids that it was given
    When the operator changes the settings and reloads:
      | calls.max_batch | 5 |
    Then the reload is applied
    And alice goes on to hear on all 3 subscriptions, by the ids that it was given
    When the operator replaces geth by besu in the file and reloads
    Then the reload is applied
    And calls go to besu
    And alice goes on to hear on all 3 subscriptions, by the ids that it was given
    And alice has missed nothing, and heard nothing twice

  Scenario: However many clients subscribe, a node serves one of them
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket
    And the proxy runs
    And alice has a WebSocket
    And alice subscribes 20 times to newHeads
    And alice subscribes 20 times to logs
    And bob has a WebSocket
    And bob subscribes 20 times to newHeads
    Then alice goes on to hear on all 40 subscriptions, by the ids that it was given
    And every node has 1 subscription of the proxy's

  @testnet
  Scenario: A block is told when the node that answers calls has it, and not before
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket
    And 1 block is mined
    And geth falls 2 blocks behind
    # Else provider may be the first to be heard, and what it has seen keeps calls from geth.
    When provider goes down
    Given the proxy runs
    When provider is well again
    Then provider is found up
    Given alice has a WebSocket
    And alice subscribes to newHeads
    And alice subscribes to logs
    And alice fetches every block that it hears of
    When 5 blocks are mined, one every 100 ms
    Then alice hears of the blocks 10,11,12,13,14, in this order
    And calls stay with geth for 300 ms
    And alice hears of the blocks 10,11,12,13,14, in this order
    When geth is well again
    Then alice hears of the blocks 10,11,12,13,14,15,16, in this order
    And alice has missed nothing, and heard nothing twice
