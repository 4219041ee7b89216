Feature: A stream of events lasts through failover and failback
  The client has the same HTTP response throughout. Each slot comes once, in order, whatever becomes of the nodes.

  Background:
    Given a primary consensus node lighthouse
    And a backup consensus node teku

  Scenario: A cut, a hang, a silence and the returns of the primary
    Given a block every 1000 ms
    And the proxy runs
    And a client listens to head,block,finalized_checkpoint,chain_reorg
    Then the client hears of 1 more slot
    And the events come from lighthouse alone
    When lighthouse goes down
    Then the client hears of 3 more slots
    And the events come from teku alone
    When lighthouse is well again
    Then the events come from lighthouse alone
    When lighthouse hangs
    Then the client hears of 3 more slots
    And the events come from teku alone
    When lighthouse is well again
    Then the events come from lighthouse alone
    When lighthouse falls silent on its streams
    Then the client hears of 4 more slots
    And the events come from teku alone
    When lighthouse is well again
    Then the events come from lighthouse alone
    And the client hears of 2 more slots
    And it has heard of every slot once, in order, and in one response
    And it has heard of every finalized checkpoint once, in order

  Scenario Outline: Missed blocks come first, in order, when the primary <fails>
    Given the proxy runs
    And a client listens to head,block,chain_reorg
    Then the events come from lighthouse alone
    When 1 block is mined
    Then the client hears of 1 more slot
    When lighthouse <fails>
    And 5 blocks are mined
    Then the client hears of 5 more slots
    And the events come from teku alone
    When lighthouse is well again
    And blocks are mined, one every 100 ms, until the events come from lighthouse alone
    And 3 blocks are mined
    Then the client hears of the chain's last slot
    And it has heard of every slot once, in order, and in one response

    Examples:
      | fails                                   |
      | goes down                               |
      | hangs                                   |
      | answers with HTTP 500                   |
      | turns optimistic                        |
      | loses its execution node                |

  Scenario: A reorganisation that falls into a switch is told once
    Given the proxy runs
    And a client listens to head,block,chain_reorg
    Then the events come from lighthouse alone
    When 1 block is mined
    Then the client hears of 1 more slot
    When lighthouse goes down
    And the chain's last 3 blocks are replaced
    Then the client hears of the slots 31,29,30,31,32 in this order
    And the client hears of one reorganisation, 3 slots deep

  Scenario: All nodes are down for a while
    Given the proxy runs
    And a client listens to head,block,chain_reorg
    Then the events come from lighthouse alone
    When 1 block is mined
    Then the client hears of 1 more slot
    When lighthouse goes down
    And teku goes down
    Then lighthouse is found down
    And teku is found down
    When 4 blocks are mined
    And teku is well again
    Then the client hears of 4 more slots
    And it has heard of every slot once, in order, and in one response

  Scenario: A reload replaces the node that the events come from
    Given the proxy runs
    And a client listens to head,block,chain_reorg
    Then the events come from lighthouse alone
    When 1 block is mined
    Then the client hears of 1 more slot
    When the operator replaces lighthouse by nimbus in the file and reloads
    Then the reload is applied
    When blocks are mined, one every 100 ms, until the events come from nimbus alone
    And 3 blocks are mined
    Then the client hears of the chain's last slot
    And it has heard of every slot once, in order, and in one response
