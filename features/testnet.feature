@testnet
Feature: What is promised holds before real nodes too
  These scenarios, and all others tagged @testnet, run by the same steps before pretend nodes, before anvil processes that are killed and stopped,
  and before an enclave's containers.

  Scenario: Batches are answered whole and in order while a node is killed, and while it comes back
    Given a primary geth
    And a backup provider
    And the proxy runs
    And clients send batches without pause
    When geth goes down
    Then calls go to provider
    When 9 more batches have been answered
    And geth is well again
    Then calls go to geth
    When 9 more batches have been answered
    Then every batch was answered whole and in order

  Scenario: Batches are answered whole and in order while a node stands still, and while it goes on
    Given a primary geth
    And a backup provider
    And the proxy runs
    And clients send batches without pause
    When geth hangs
    Then calls go to provider
    When 9 more batches have been answered
    And geth is well again
    Then calls go to geth
    When 9 more batches have been answered
    Then every batch was answered whole and in order

  Scenario: Calls wait while all nodes are gone, and are answered by the first that is back
    Given a primary geth
    And a backup provider
    And the proxy runs
    When geth goes down
    And provider goes down
    Then geth is found down
    And provider is found down
    When 12 calls come, one after the other
    And 2 seconds pass
    Then 12 calls are held
    When provider is well again
    Then every call that waited is answered
    And calls go to provider
    When geth is well again
    Then calls go to geth

  Scenario: Messages that come in the window where no node is there are all answered, each once
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket
    And the proxy runs
    And alice has a WebSocket
    And alice subscribes to newHeads
    When geth goes down
    And provider goes down
    Then geth is found down
    And provider is found down
    When alice sends 30 calls, and they wait
    And 2 seconds pass
    And geth is well again
    Then every call of alice is answered with a result
    And alice was answered 31 times in all
    And alice goes on to hear on all 1 subscriptions, by the ids that it was given
    And alice has missed nothing, and heard nothing twice

  Scenario Outline: The proxy subscribes anew at each node that it turns to, and no client sees an answer to that, when the primary <fails>
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket
    And a block every 250 ms
    And the proxy runs
    And alice has a WebSocket
    And alice subscribes to newHeads
    And alice subscribes to logs
    And alice subscribes to newPendingTransactions
    When alice begins to call 200 times, once every 20 ms
    And geth <fails>
    Then calls go to provider
    When geth is well again
    Then calls go to geth
    When geth <fails>
    Then calls go to provider
    When geth is well again
    Then calls go to geth
    And every call of alice is answered with a result
    And alice was answered 203 times in all
    And alice goes on to hear on all 3 subscriptions, by the ids that it was given
    And alice has missed nothing, and heard nothing twice

    Examples:
      | fails     |
      | goes down |
      | hangs     |

  Scenario: Subscriptions to heads go on by their ids, each head once, while nodes are stopped and started
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket
    And a block every 250 ms
    And the proxy runs
    And alice has a WebSocket
    And alice subscribes to newHeads
    And alice fetches every block that it hears of
    When alice begins to call 100 times, once every 20 ms
    And alice has heard of 2 more blocks
    And geth goes down
    Then calls go to provider
    And alice hears of 3 more blocks
    When geth is well again
    Then calls go to geth
    And alice hears of 3 more blocks
    And every call of alice is answered with a result
    And alice has missed nothing, and heard nothing twice

  Scenario Outline: The operator takes a node out while a client is subscribed to newHeads and <more>
    Given a primary geth with a WebSocket
    And a backup provider with a WebSocket
    And a block every 250 ms
    And the proxy runs
    And alice has a WebSocket
    And alice subscribes to newHeads
    And alice subscribes to <more>
    When the operator cordons geth
    Then calls go to provider
    And alice hears of 3 more blocks
    When the operator uncordons geth
    Then calls go to geth
    And alice hears of 3 more blocks
    And alice has missed nothing, and heard nothing twice

    Examples:
      | more     |
      | newHeads |
      | logs     |

  Scenario: A transaction that is sent while the primary is dead is in the chain once
    Given a primary geth
    And a backup provider
    And the proxy runs
    And a client has a signed transaction
    And clients call without pause
    When geth goes down
    And a client sends a signed transaction
    Then the client gets the transaction's hash
    And the transaction waits for a block exactly once
    When 2 blocks are mined
    Then the transaction is in the chain exactly once
    When geth is well again
    Then calls go to geth
    And the transaction is in the chain exactly once
    And its receipt says in which block
    And every call was answered

  Scenario: A transaction that a node takes and cannot answer is sent to another, and is in the chain once
    Given a primary geth
    And a backup provider
    And the proxy runs
    And a client has a signed transaction
    When geth hangs
    And a client sends a signed transaction
    Then the client gets the transaction's hash
    And the transaction waits for a block exactly once
    When geth is well again
    And 2 blocks are mined
    Then the transaction is in the chain exactly once
    And calls go to geth
    And its receipt says in which block

  Scenario: A transaction that comes when no node is there waits for one
    Given a primary geth
    And a backup provider
    And the proxy runs
    And a client has a signed transaction
    When geth goes down
    And provider goes down
    Then geth is found down
    And provider is found down
    When a client sends the signed transaction, and does not wait for the answer
    Then 1 calls are held
    When provider is well again
    And the client waits for the outcome
    Then the client gets the transaction's hash
    When 1 block is mined
    Then the transaction is in the chain exactly once

  Scenario Outline: Filters of <what> outlive the time in which no node is there
    Given a primary geth
    And a backup provider
    And the proxy runs
    And the client polls filters of <what>
    When geth goes down
    And provider goes down
    Then geth is found down
    And provider is found down
    When 3 blocks are mined
    And geth is well again
    Then calls go to geth
    And the polls tell all <what> since then, each once

    Examples:
      | what            |
      | blocks          |
      | blocks and logs |

  Scenario: Status and metrics tell of a failover, and that it is over
    Given a primary geth
    And a backup provider
    And the proxy runs
    Then the status tells of no failover, and status and metrics agree
    When geth goes down
    Then calls go to provider
    And the status tells of a failover, and status and metrics agree
    When geth is well again
    Then calls go to geth
    And the status tells of no failover, and status and metrics agree
    And the proxy has counted a switch for the reason down
    And the proxy has counted a switch for the reason failback

  Scenario: Nodes that are stopped and started one after the other cost no call
    Given a primary geth
    And a primary besu
    And a backup provider
    And the proxy runs
    And clients call without pause
    When geth goes down
    Then calls go to besu
    When geth is well again
    Then calls go to geth
    When besu goes down
    Then besu is found down
    And calls go to geth
    When besu is well again
    Then besu is found up
    When provider goes down
    Then provider is found down
    When provider is well again
    Then provider is found up
    And calls go to geth
    And every call was answered

  Scenario: Requests to the beacon API wait while all nodes are gone
    Given a primary consensus node lighthouse
    And a backup consensus node teku
    And the proxy runs
    When lighthouse goes down
    And teku goes down
    Then lighthouse is found down
    And teku is found down
    When 5 calls come, one after the other
    And lighthouse is well again
    Then every call that waited is answered
    And calls go to lighthouse

  Scenario: Events of the beacon API go on in one response while nodes are stopped and started
    Given a primary consensus node lighthouse
    And a backup consensus node teku
    And a block every 1000 ms
    And the proxy runs
    And a client listens to head,block,finalized_checkpoint,chain_reorg
    Then the client hears of 1 more slot
    When lighthouse goes down
    Then the client hears of 3 more slots
    And calls go to teku
    When lighthouse is well again
    Then calls go to lighthouse
    And the client hears of 2 more slots
    And it has heard of every slot once, in order, and in one response

  Scenario: Events of the beacon API go on when all nodes were gone
    Given a primary consensus node lighthouse
    And a backup consensus node teku
    And a block every 1000 ms
    And the proxy runs
    And a client listens to head,block,chain_reorg
    Then the client hears of 1 more slot
    When lighthouse goes down
    And teku goes down
    Then lighthouse is found down
    And teku is found down
    When teku is well again
    Then the client hears of 4 more slots
    And it has heard of every slot once, in order, and in one response

  Scenario: Status and metrics tell of a failover of the consensus side
    Given a primary consensus node lighthouse
    And a backup consensus node teku
    And the proxy runs
    Then the status tells of no failover, and status and metrics agree
    When lighthouse goes down
    Then calls go to teku
    And the status tells of a failover, and status and metrics agree
    When lighthouse is well again
    Then calls go to lighthouse
    And the status tells of no failover, and status and metrics agree
